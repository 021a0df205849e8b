//! `farshore umount DIR`.

use crate::error::{CliError, Done, EXIT_DONE};
use farshore_client::fuse;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    pub directory: PathBuf,
    /// Also while files are open below it
    #[arg(long)]
    pub force: bool,
}

pub async fn run(args: Args) -> Done {
    let done = tokio::task::spawn_blocking(move || fuse::unmount_dir(&args.directory, args.force)).await;
    match done {
        Ok(Ok(())) => Ok(EXIT_DONE),
        Ok(Err(error)) => Err(CliError::failed(error.to_string(), "")),
        Err(error) => Err(CliError::failed(format!("the unmount was cut short: {error}"), "repeat it")),
    }
}
