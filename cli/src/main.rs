//! The one binary. Parses, runs one verb, prints the error if there is one, and exits: 0 done, 1 failed, 2 bad usage.

mod args;
mod commands;
mod connect;
mod demo;
mod error;
mod files;
mod measure;
mod node_metrics;
mod output;
mod render;
mod shutdown;
mod topology_file;
mod world;

use args::{Asked, Command};
use error::{CliError, Done, EXIT_FAILED};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match args::parse() {
        Asked::Later(verb) => Err(CliError::not_yet(&verb)),
        Asked::Now(command) => start(*command),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            error.print();
            ExitCode::from(error.exit)
        }
    }
}

fn start(command: Command) -> Done {
    log_to_stderr(&command);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers()).enable_all().build();
    let runtime =
        runtime.map_err(|error| CliError { exit: EXIT_FAILED, what: format!("cannot start: {error}"), mend: String::new() })?;
    runtime.block_on(run(command))
}

/// Threads that run tasks: half of the processors. The other half is for what has threads of its own (log, apply, the kernel's
/// network), and a task that wakes another on the same thread wakes no processor: on two of them, one thread instead of two
/// answered a lone caller's creates in 0.64 ms instead of 0.76.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

/// Services say what they do; other verbs speak up only when something is wrong. `RUST_LOG` overrides both.
fn log_to_stderr(command: &Command) {
    let service = match command {
        Command::Node(args) => args.is_service(),
        Command::Bucket(_) | Command::Console(_) | Command::Mount(_) | Command::Worker(_) => true,
        _ => false,
    };
    // openraft tells at info what only its authors need.
    let level = if service { "info,openraft=error" } else { "error" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

async fn run(command: Command) -> Done {
    match command {
        Command::Up(args) => commands::up::run(args).await,
        Command::Down(args) => commands::down::run(args).await,
        Command::Demo(args) => commands::demo::run(&args),
        Command::Status(args) => commands::status::run(args).await,
        Command::Lag(args) => commands::lag::run(args).await,
        Command::Replication(args) => commands::replication::run(args).await,
        Command::Heal(args) => commands::heal::run(args).await,
        Command::Format(args) => commands::format::run(args).await,
        Command::Mount(args) => commands::mount::run(args).await,
        Command::Umount(args) => commands::umount::run(args).await,
        Command::Ls(args) => commands::paths::ls(args).await,
        Command::Cat(args) => commands::paths::cat(args).await,
        Command::Cp(args) => commands::paths::cp(args).await,
        Command::Rm(args) => commands::paths::rm(args).await,
        Command::Stat(args) => commands::paths::stat(args).await,
        Command::Worker(args) => commands::worker::run(args).await,
        Command::Bench(args) => commands::bench::run(args).await,
        Command::Mdtest(args) => commands::mdtest::run(args).await,
        Command::Node(args) => commands::node::run(args).await,
        Command::Bucket(args) => commands::bucket::run(args).await,
        Command::Console(args) => commands::console::run(args).await,
        Command::History(args) => commands::history::run(args).await,
    }
}
