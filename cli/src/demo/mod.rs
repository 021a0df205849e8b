//! The demonstration: real processes, real buckets, a real mount where the machine has FUSE, in a directory and on ports
//! of its own. It leaves nothing running.

mod stage;
mod story;
mod tree;

use crate::error::{CliError, io_error};
use crate::output::{print, print_json};
use serde::Serialize;
use stage::Stage;

/// One step of the story.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Step {
    pub name: &'static str,
    pub passed: bool,
    pub seconds: f64,
    /// What happened, in a sentence.
    pub told: String,
    /// The figures behind the sentence.
    pub figures: serde_json::Map<String, serde_json::Value>,
}

/// `demo --json`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    pub passed: bool,
    pub fuse: bool,
    pub seconds: f64,
    pub steps: Vec<Step>,
}

/// Tells the story; whether every step passed.
pub fn tell(json: bool, keep: bool) -> Result<bool, CliError> {
    let began = std::time::Instant::now();
    let mut stage = Stage::set(json, keep)?;
    if !json {
        print(&format!("A world of two regions, in {}\n", stage.dir().display()));
        if !stage.fuse {
            print("This machine has no usable FUSE (/dev/fuse): files go in and out by `farshore cp`, without a mount.\n");
        }
    }
    let mut verdict = Verdict { fuse: stage.fuse, ..Verdict::default() };
    for (name, act) in story::STEPS {
        let start = std::time::Instant::now();
        let mut step = Step { name, ..Step::default() };
        match act(&mut stage, &mut step) {
            Ok(told) => {
                step.passed = true;
                step.told = told;
            }
            Err(error) => step.told = error.to_string(),
        }
        step.seconds = start.elapsed().as_secs_f64();
        if !json {
            let mark = if step.passed { "ok  " } else { "FAIL" };
            print(&format!("{mark} {:5.1} s  {name}: {}\n", step.seconds, step.told));
        }
        let passed = step.passed;
        verdict.steps.push(step);
        if !passed {
            stage.show_logs();
            break;
        }
    }
    let ended = stage.strike();
    verdict.passed = ended.is_ok() && verdict.steps.len() == story::STEPS.len() && verdict.steps.iter().all(|step| step.passed);
    verdict.seconds = began.elapsed().as_secs_f64();
    if json {
        print_json(&verdict);
    } else {
        let word = if verdict.passed { "PASSED" } else { "FAILED" };
        print(&format!("{word} in {:.1} s; nothing is left running\n", verdict.seconds));
    }
    ended.map_err(|error| io_error("stop the demonstration in", stage.dir(), &error))?;
    Ok(verdict.passed)
}
