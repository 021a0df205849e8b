//! `farshore lag`: all watermarks of all regions.

use crate::error::{Done, EXIT_DONE, EXIT_FAILED, EXIT_LATE, EXIT_UNKNOWN};
use crate::output::{print, print_json};
use crate::render;
use crate::topology_file::WorldArgs;
use farshore_console::observe::{Observer, Verdict, judge};
use farshore_types::topology::Topology;
use farshore_wire::view::LagView;
use std::time::Duration;

/// Between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The volume [default: the topology's only one]
    pub volume: Option<String>,
    #[command(flatten)]
    pub world: WorldArgs,
    /// Look again every second, until Ctrl-C
    #[arg(long, conflicts_with = "check")]
    pub watch: bool,
    /// Exit with 0 when every region is within its objectives, 3 when one is late, 4 when that is not known
    #[arg(long)]
    pub check: bool,
    #[arg(long)]
    pub json: bool,
}

pub async fn run(args: Args) -> Done {
    let world = args.world.running()?;
    let volume = world.volume(args.volume.as_deref())?.name.clone();
    let observer = Observer::new(world.topology.clone(), volume);
    loop {
        let view = observer.poll_lag().await;
        match (args.json, args.watch) {
            (true, true) => print(&(serde_json::to_string(&view).expect("views always serialise") + "\n")),
            (true, false) => print_json(&view),
            // Home and clear, then the table.
            (false, true) => print(&format!("\x1b[H\x1b[2J{}", render::lag(&world.topology, &view))),
            (false, false) => print(&render::lag(&world.topology, &view)),
        }
        if !args.watch {
            return Ok(exit_code(&world.topology, &view, args.check));
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// Not known outweighs late: a figure of yesterday is no verdict.
fn exit_code(topology: &Topology, view: &LagView, check: bool) -> u8 {
    if !check {
        return if view.observer == "none" { EXIT_FAILED } else { EXIT_DONE };
    }
    let verdicts: Vec<Verdict> = view.regions.iter().map(|line| judge(topology, view, line)).collect();
    if view.stale || verdicts.contains(&Verdict::Unknown) {
        return EXIT_UNKNOWN;
    }
    if verdicts.iter().any(|verdict| *verdict != Verdict::Well) { EXIT_LATE } else { EXIT_DONE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_wire::view::RegionLag;

    #[test]
    fn check_tells_well_late_and_unknown_apart() {
        let topology = Topology::parse(crate::topology_file::DEFAULT_TOPOLOGY, "t").unwrap();
        let line = |region: &str, data: Option<f64>, age| RegionLag {
            region: region.into(),
            recoverable: Some(5),
            metadata_seconds_behind: Some(0.0),
            data_seconds_behind: data,
            age_seconds: age,
            ..RegionLag::default()
        };
        let view = |data, age, stale| LagView {
            volume: "demo".into(),
            observer: "us-east".into(),
            primary: "us-east".into(),
            stale,
            regions: vec![line("us-east", Some(0.0), Some(0.1)), line("eu-west", data, age)],
            ..LagView::default()
        };
        let code = |view: &LagView| exit_code(&topology, view, true);
        assert_eq!(code(&view(Some(1.0), Some(0.1), false)), EXIT_DONE);
        assert_eq!(code(&view(Some(11.0), Some(0.1), false)), EXIT_LATE);
        assert_eq!(code(&view(Some(1.0), Some(0.1), true)), EXIT_UNKNOWN);
        assert_eq!(code(&view(Some(11.0), Some(60.0), false)), EXIT_UNKNOWN);
        assert_eq!(code(&view(None, Some(0.1), false)), EXIT_UNKNOWN);
        assert_eq!(exit_code(&topology, &view(Some(11.0), None, true), false), EXIT_DONE);
    }
}
