//! Histories from a seed: pods come and go, requests get lost, cloud and API have bad days, and the process dies.

use std::time::Duration;

use local_cloud::Fault;
use local_cloud::backend::StartDelay;
use serde_json::json;

use super::fate::Chance;
use super::world::{NAMESPACE, World, ZONES, text};

/// Played at every build; the environment variable asks for more.
const HISTORIES: u64 = 40;
const STEPS: u64 = 60;
const NAMES: u64 = 4;
const CALM: u32 = 8;
const LONGEST: u32 = 180;

struct History {
    world: World,
    chance: Chance,
    /// Steps until the API answers again.
    api_away: u64,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let delay = StartDelay {
            prepare: Duration::from_millis(chance.below(800)),
            pull: Duration::from_millis(chance.below(800)),
            start: Duration::from_millis(chance.below(100)),
        };
        let world = World::new(seed, delay);
        world
            .fate
            .set_losses([0, 12, 30][usize::try_from(chance.below(3)).unwrap()]);
        Self {
            world,
            chance,
            api_away: 0,
        }
    }

    fn step(&mut self) {
        self.world.advance(20 + self.chance.below(700));
        if self.api_away > 0 {
            self.api_away -= 1;
            self.world.fate.set_api_down(self.api_away > 0);
        }
        match self.chance.below(20) {
            0..=7 => self.user(),
            8..=11 => self.cloud_trouble(),
            12 => self.harm(),
            13 => self.api_trouble(),
            14 => self.profile(),
            15..=17 => {
                let moment = self.world.fate.moments() + 1 + self.chance.below(40);
                self.world.fate.die_at(Some(moment));
            }
            18 => self.world.kill(),
            _ => {}
        }
    }

    fn user(&mut self) {
        let name = format!("p{}", self.chance.below(NAMES));
        let pods = self.world.api.all("pods");
        let exists = pods
            .iter()
            .any(|pod| pod["metadata"]["name"] == name.as_str());
        match (exists, self.chance.below(6)) {
            (false, _) => self.create(&name),
            (true, 0..=2) => self.world.delete_pod(&name, false),
            (true, 3) => {
                self.world.delete_pod(&name, true);
                self.create(&name);
            }
            (true, 4) => self.world.delete_pod(&name, true),
            (true, _) => {
                let image = format!("shop:{}", self.chance.below(3));
                let containers = json!([{"name": "web", "image": image}]);
                self.world.api.patch(
                    "pods",
                    NAMESPACE,
                    &name,
                    &json!({"spec": {"containers": containers}}),
                );
            }
        }
    }

    fn create(&mut self, name: &str) {
        let nodes = self.world.api.all("nodes");
        let node = match self.chance.of(&nodes) {
            Some(node) => text(&node["metadata"]["name"]),
            None => format!("virtual-kubelet-{}", ZONES[0]),
        };
        let spot = self.chance.one_in(3);
        self.world.create_pod(name, &node, spot);
    }

    fn cloud_trouble(&mut self) {
        let actions = [
            "CreateContainerGroup",
            "DeleteContainerGroup",
            "DescribeContainerGroupStatus",
            "DescribeContainerGroups",
        ];
        let action = *self.chance.of(&actions).unwrap();
        let zone = self.chance.of(&ZONES).map(|zone| (*zone).to_owned());
        let (times, seconds) = (
            Some(1 + self.chance.below(3)),
            Some(2 + self.chance.below(6)),
        );
        let refuse = |code: &str, http_status| Fault::Refuse {
            code: code.to_owned(),
            http_status,
        };
        match self.chance.below(9) {
            0..=1 => self
                .world
                .fault(Fault::LoseAnswer, Some(action), times, None),
            2 => self.world.fault(Fault::Throttle, Some(action), times, None),
            3 => {
                let delay_ms = 200 + self.chance.below(5_000);
                self.world
                    .fault(Fault::Latency { delay_ms }, Some(action), times, None);
            }
            4 => self
                .world
                .fault(refuse("InternalError", 500), Some(action), times, None),
            5 => self.world.fault(Fault::Down, None, None, seconds),
            6 => self
                .world
                .fault(Fault::NoStock { zone, spec: None }, None, None, seconds),
            7 => self.world.fault(
                Fault::NoAddresses {
                    zone,
                    v_switch: None,
                },
                None,
                None,
                seconds,
            ),
            _ => self
                .world
                .fault(Fault::SecurityGroup { id: None }, None, None, seconds),
        }
    }

    /// A group is taken from its pod.
    fn harm(&mut self) {
        let groups = self.world.cloud.groups();
        let Some(group) = self.chance.of(&groups) else {
            return;
        };
        let uid = group
            .tags
            .iter()
            .find(|tag| tag.key == "springtide/uid")
            .map(|tag| tag.value.clone());
        self.world.harmed.extend(uid);
        let (zone, id) = (None, Some(group.id.clone()));
        match self.chance.below(3) {
            0 => self.world.cloud.delete(&group.id),
            1 => self.world.fault(
                Fault::InstanceFailure { group: id, zone },
                None,
                Some(1),
                None,
            ),
            _ => self
                .world
                .fault(Fault::SpotReclaim { group: id, zone }, None, Some(1), None),
        }
    }

    fn api_trouble(&mut self) {
        match self.chance.below(4) {
            0 => {
                self.api_away = 1 + self.chance.below(8);
                self.world.fate.set_api_down(true);
                self.world.api.hang_up();
            }
            1 => self.world.api.hang_up(),
            2 => {
                self.world.api.compact();
                self.world.api.hang_up();
            }
            _ => {
                let nodes = self.world.api.all("nodes");
                if let Some(node) = self.chance.of(&nodes) {
                    self.world
                        .api
                        .delete("nodes", "", &text(&node["metadata"]["name"]), true);
                }
            }
        }
    }

    fn profile(&mut self) {
        let both = format!("vsw-{},vsw-{}", ZONES[0], ZONES[1]);
        let data = match self.chance.below(5) {
            0..=1 => json!({"vSwitchIds": both, "selectors": null}),
            2 => json!({"vSwitchIds": format!("vsw-{}", ZONES[0]), "selectors": null}),
            3 => json!({"vSwitchIds": format!("vsw-{}", ZONES[1]), "selectors": null}),
            _ => json!({"selectors": "{"}),
        };
        let (space, name) = ("kube-system", "eci-profile");
        if self.world.api.all("configmaps").is_empty() {
            self.world.api.create(
                "configmaps",
                space,
                json!({"metadata": {"name": name}, "data": {"vSwitchIds": both}}),
            );
        }
        self.world
            .api
            .patch("configmaps", space, name, &json!({"data": data}));
    }

    fn end(&mut self) -> Result<(), String> {
        self.world.fate.set_losses(0);
        self.world.fate.die_at(None);
        self.world.fate.set_api_down(false);
        self.world.cloud.clear_faults();
        if self.chance.one_in(4) {
            self.world.sold_out = true;
            for zone in ZONES {
                self.world.cloud.set_stock(zone, Some(0.0));
            }
        }
        self.world.come_to_rest(CALM, LONGEST)
    }
}

/// Plays one history; what is the same whenever it is played.
fn play(seed: u64) -> Result<(u64, u64), String> {
    let mut history = History::new(seed);
    for _ in 0..STEPS {
        history.step();
        if let Some(doubled) = history.world.doubled() {
            return Err(doubled);
        }
    }
    history.end()?;
    Ok((history.world.fate.moments(), history.world.deaths))
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
    )
}

#[test]
fn no_history_with_deaths_doubles_leaks_or_loses_anything() {
    let seeds = match number("SPRINGTIDE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SPRINGTIDE_HISTORIES").unwrap_or(HISTORIES),
    };
    let mut deaths = 0;
    for seed in seeds.clone() {
        match play(seed) {
            Ok((_, died)) => deaths += died,
            Err(trouble) => panic!(
                "history {seed}: {trouble}\nplay it again: SPRINGTIDE_SEED={seed} cargo test -p elastic-node --test it deaths::histories"
            ),
        }
    }
    println!("{} histories with {deaths} deaths", seeds.end - seeds.start);
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in [3, 11] {
        assert_eq!(play(seed), play(seed), "history {seed}");
    }
}
