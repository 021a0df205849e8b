//! `farshore node add | remove | replace`: one wish, carried out step by step by what the leader says.

use super::ChangeArgs;
use super::plan::{self, Step, Wish};
use crate::commands::up;
use crate::error::{CliError, Done, EXIT_DONE};
use crate::output::{print, print_json};
use crate::topology_file::World;
use crate::world::process;
use farshore_console::observe::addresses;
use farshore_types::topology::{NodePlace, RegionSpec, nearest};
use farshore_wire::admin::{AdminAnswer, AdminCall, MembersView, NewMember};
use farshore_wire::admin_client::{AdminClient, AdminError, unexpected};
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long one node may take to answer; a change of the voters waits for a majority's disks, twice.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// How long a cluster may be without a leader; an election fits well.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// Until a node of this machine that was taken out must have ended by itself.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// What was done.
#[derive(Debug, Serialize)]
struct Report {
    region: String,
    added: Option<String>,
    removed: Option<String>,
    /// The members afterwards.
    members: MembersView,
}

pub async fn add(name: &str, args: &ChangeArgs) -> Done {
    let world = args.world.declared()?;
    let place = declared(&world, name)?;
    let cluster = Cluster::of(&world, place.region)?;
    let wish = Wish { add: Some(arrival(&world, place, &cluster.client).await?), remove: None };
    cluster.carry_out(&wish, (Some(name), None), args).await
}

pub async fn remove(name: &str, args: &ChangeArgs) -> Done {
    let world = args.world.declared()?;
    let (cluster, id) = Cluster::with_member(&world, name).await?;
    cluster.carry_out(&Wish { add: None, remove: Some(id) }, (None, Some(name)), args).await
}

pub async fn replace(old: &str, new: &str, args: &ChangeArgs) -> Done {
    let world = args.world.declared()?;
    let place = declared(&world, new)?;
    let cluster = Cluster::of(&world, place.region)?;
    let arrives = arrival(&world, place, &cluster.client).await?;
    let members = cluster.members().await?;
    let goes = members.members.iter().find(|member| member.name == old && member.id != arrives.id).map(|member| member.id);
    if goes.is_none() && !members.members.iter().any(|member| member.id == arrives.id) {
        return Err(unknown_member(old, &members));
    }
    cluster.carry_out(&Wish { add: Some(arrives), remove: goes }, (Some(new), Some(old)), args).await
}

/// The node as the topology declares it; says what to add when it does not.
fn declared<'w>(world: &'w World, name: &str) -> Result<NodePlace<'w>, CliError> {
    world.topology.node(name).ok_or_else(|| {
        let what = format!("{} declares no node {name:?}", world.topology.origin.display());
        let region = world.topology.regions().first().map_or("REGION", |region| region.name.as_str());
        let near = nearest(name, world.topology.nodes().map(|place| place.node.name.as_str()));
        let near = near.map(|near| format!("did you mean {near:?}? Else ")).unwrap_or_default();
        let line = format!("{{ name = {name:?}, listen = \"HOST:PORT\" }}");
        CliError::usage(
            what,
            format!("{near}add {line} to the nodes of its region, for example [region.{region}], and repeat the command"),
        )
    })
}

/// The node that comes, as it says of itself. In a world of this machine it is started first.
async fn arrival(world: &World, place: NodePlace<'_>, client: &AdminClient) -> Result<NewMember, CliError> {
    let (name, address) = (&place.node.name, place.node.address());
    if world.dir.exists() {
        up::start_node(world, name).await?;
    }
    let health = client.health(&address).await.map_err(|error| {
        let mend = format!("start it there with `farshore node run {name}`, then repeat the command");
        CliError::failed(format!("{name} does not answer: {error}"), mend)
    })?;
    if health.name != *name || health.cluster != place.region.cluster.0 {
        let what = format!("{address} is node {} of {}, not {name} of {}", health.name, health.region, place.region.name);
        return Err(CliError::failed(what, "give each node an address of its own in the topology"));
    }
    Ok(NewMember { id: health.node, name: name.clone(), address })
}

fn unknown_member(name: &str, members: &MembersView) -> CliError {
    let names: Vec<&str> = members.members.iter().map(|member| member.name.as_str()).collect();
    let mend = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("its nodes are {}", names.join(", ")),
    };
    CliError::usage(format!("the cluster has no node {name:?}"), mend)
}

/// A region's cluster, and how to ask it.
struct Cluster<'w> {
    world: &'w World,
    region: &'w RegionSpec,
    client: AdminClient,
}

impl<'w> Cluster<'w> {
    fn of(world: &'w World, region: &'w RegionSpec) -> Result<Cluster<'w>, CliError> {
        let volume = world.volume(None)?.name.clone();
        Ok(Cluster { world, region, client: AdminClient::new(volume, CALL_DEADLINE) })
    }

    /// The cluster that has a node of this name, which the topology need not declare any more.
    async fn with_member(world: &'w World, name: &str) -> Result<(Cluster<'w>, u64), CliError> {
        let mut known = MembersView::default();
        for region in world.topology.regions() {
            let cluster = Cluster::of(world, region)?;
            let view = cluster.members().await?;
            if let Some(member) = view.members.iter().find(|member| member.name == name) {
                return Ok((cluster, member.id));
            }
            known.members.extend(view.members);
        }
        Err(unknown_member(name, &known))
    }

    /// The members by the leader's word; waits for a leader.
    async fn members(&self) -> Result<MembersView, CliError> {
        let end = Instant::now() + SILENT_MAX;
        loop {
            match self.look().await {
                Err(error) if error.is_transient() && Instant::now() < end => tokio::time::sleep(LOOK_EVERY).await,
                looked => return Ok(looked?),
            }
        }
    }

    async fn look(&self) -> Result<MembersView, AdminError> {
        match self.client.call_leader(&addresses(self.region), &AdminCall::Members).await? {
            (_, AdminAnswer::Members(view)) => Ok(view),
            (address, other) => Err(unexpected(&address, &other)),
        }
    }

    /// Steps until the wish is reality, then tells.
    async fn carry_out(&self, wish: &Wish, (new, old): (Option<&str>, Option<&str>), args: &ChangeArgs) -> Done {
        let target = if args.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        let end = Instant::now() + Duration::from_secs(args.timeout);
        let members = loop {
            let stepped = self.step(wish, &bar).await;
            match stepped {
                Ok(Some(members)) => break members,
                Ok(None) => {}
                Err(error) if error.is_transient() => bar.set_message(error.to_string()),
                Err(error) => return Err(error.into()),
            }
            if Instant::now() >= end {
                let what = format!("not finished within {} s: {}", args.timeout, bar.message());
                return Err(CliError::failed(what, "what was done stays done; repeat the command to go on"));
            }
            bar.tick();
            tokio::time::sleep(LOOK_EVERY).await;
        };
        bar.finish_and_clear();
        let ended = old.filter(|old| new != Some(*old)).map(|old| self.farewell(old));
        let report =
            Report { region: self.region.name.clone(), added: new.map(str::to_owned), removed: old.map(str::to_owned), members };
        if args.json {
            print_json(&report);
        } else {
            print(&told(&report, ended.as_deref()));
        }
        Ok(EXIT_DONE)
    }

    /// One look and one step; the members once nothing is left to do.
    async fn step(&self, wish: &Wish, bar: &ProgressBar) -> Result<Option<MembersView>, AdminError> {
        let view = self.look().await?;
        let call = match plan::next(&view, wish) {
            Step::Done => return Ok(Some(view)),
            Step::CatchUp(behind) => {
                bar.set_message(match behind {
                    Some(behind) => format!("the new node receives what it lacks: {behind} entries"),
                    None => "the new node receives what it lacks".to_owned(),
                });
                return Ok(None);
            }
            Step::TakeIn => AdminCall::MemberAdd {
                member: wish.add.clone().expect("only a wish with a new node takes one in"),
                instead_of: wish.remove,
            },
            Step::Change => AdminCall::MemberChange { add: wish.add.as_ref().map(|new| new.id), remove: wish.remove },
        };
        self.client.call_leader(&addresses(self.region), &call).await?;
        Ok(None)
    }

    /// What became of the process of a node that was taken out: it hears so, and ends by itself.
    fn farewell(&self, old: &str) -> String {
        if !self.world.dir.exists() {
            return format!("{old} ends by itself once it hears of it");
        }
        match process::has_ended(&self.world.dir, old, ENDS_WITHIN) {
            true => format!("{old} has ended; {} can be removed", self.world.dir.node(old).display()),
            false => format!("{old} still runs; it ends by itself once it hears of it"),
        }
    }
}

fn told(report: &Report, ended: Option<&str>) -> String {
    let voters: Vec<&str> =
        report.members.members.iter().filter(|member| member.voter).map(|member| member.name.as_str()).collect();
    let did = match (&report.added, &report.removed) {
        (Some(new), Some(old)) => format!("{new} votes in {} in place of {old}", report.region),
        (Some(new), None) => format!("{new} votes in {}", report.region),
        (None, Some(old)) => format!("{old} was taken out of {}", report.region),
        (None, None) => String::new(),
    };
    let ended = ended.map(|ended| format!("{ended}\n")).unwrap_or_default();
    format!("{did}; its voters are {}\n{ended}", voters.join(", "))
}
