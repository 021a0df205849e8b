//! `farshore mdtest`: metadata operations per second, in the table that users of mdtest know.

use crate::error::{Done, EXIT_DONE};
use crate::measure::tree::{Shape, Tree};
use crate::measure::{Place, run as measure, table};
use crate::output::{print, print_json};
use serde_json::json;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    shape: Shape,
}

pub async fn run(args: Args) -> Done {
    let Args { place, shape } = args;
    shape.check(place.threads)?;
    let rates = measure(&place, Tree(shape.clone())).await?;
    if place.json {
        let about = json!({ "place": place.place, "threads": place.threads, "sessions": place.sessions, "shape": shape });
        print_json(&json!({ "load": about, "operations": table::mdtest_json(&rates) }));
    } else {
        let tree = shape.tree().unwrap_or(0);
        print(&format!(
            "{} threads, {tree} directories, {} directories and {} files of {} bytes\n\n",
            place.threads,
            tree * shape.files * place.threads,
            tree * shape.files * place.threads,
            shape.write,
        ));
        print(&table::mdtest(&rates, shape.iterations));
    }
    Ok(EXIT_DONE)
}
