//! Rewind on live nodes (issue point 10; law 20): a mirror goes back to earlier indices, each time to the state that it had
//! there by going forward, and then follows again.

use farshore_live::world::stand;
use farshore_live::{World, WorldOptions, wait_for};
use farshore_wire::admin::{AdminAnswer, AdminCall};
use farshore_wire::admin_client::{AdminClient, AdminError};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const PRIMARIES: [&str; 3] = ["use-a", "use-b", "use-c"];

/// Writes a file, and says where both clusters stand then.
fn grow(world: &World, round: usize) -> (u64, String) {
    let source = world.scratch("sources").join("file");
    fs::write(&source, format!("content of round {round}")).unwrap();
    world.cli(&["cp", source.to_str().unwrap(), &format!("demo:/file{round}")]).done();
    if round % 2 == 1 {
        world.cli(&["rm", &format!("demo:/file{}", round - 1)]).done();
    }
    stand_alike(world)
}

fn stand_alike(world: &World) -> (u64, String) {
    wait_for("both clusters to stand alike", SOON, || {
        let status = world.status();
        let here = stand(&status, "us-east", 3)?;
        (stand(&status, "eu-west", 3)? == here).then_some(here)
    })
}

fn rewind(world: &World, region: &str, to: u64) -> Result<AdminAnswer, AdminError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = AdminClient::new("demo", SOON);
    wait_for("the leader to answer", SOON, || {
        let address = world.address(&world.leader(region)?)?;
        match runtime.block_on(client.call(&address, &AdminCall::Rewind { to })) {
            Err(error) if error.is_transient() => None,
            answer => Some(answer),
        }
    })
}

#[test]
fn law_20_a_mirror_goes_back_to_what_it_was_and_follows_again() {
    let world = World::start(WorldOptions::default());
    let history: Vec<_> = (0..6).map(|round| grow(&world, round)).collect();
    let refused = rewind(&world, "us-east", history[0].0);
    assert!(matches!(&refused, Err(AdminError::Failed { message, .. }) if message.contains("only a mirror")), "{refused:?}");
    let beyond = rewind(&world, "eu-west", history[5].0 + 1);
    assert!(matches!(&beyond, Err(AdminError::Failed { message, .. }) if message.contains("from ")), "{beyond:?}");
    // What it goes back from must not come again at once.
    PRIMARIES.into_iter().for_each(|node| world.pause(node));
    for (index, digest) in [&history[4], &history[3], &history[0]] {
        assert_eq!(rewind(&world, "eu-west", *index), Ok(AdminAnswer::Done));
        wait_for("the mirror's nodes to be back", SOON, || {
            (stand(&world.status(), "eu-west", 3)? == (*index, digest.clone())).then_some(())
        });
    }
    // Also through a restart of its nodes.
    for node in ["euw-a", "euw-b", "euw-c"] {
        world.kill_node(node);
    }
    PRIMARIES.into_iter().for_each(|node| world.resume(node));
    world.up();
    let (index, _) = stand_alike(&world);
    assert!(index >= history[5].0, "the primary's history is what it was");
    assert_eq!(world.cli(&["cat", "demo:/file5", "--region", "eu-west"]).done().stdout, b"content of round 5");
}
