//! One short life after another, each repeated with a death at its first moment, its second, and so on to the last.

use std::time::Duration;

use local_cloud::Fault;
use local_cloud::backend::StartDelay;

use super::world::{World, ZONES};

const SEED: u64 = 7;
/// Seconds without anything wrong that count as rest: longer than what a sweep needs.
const CALM: u32 = 8;
const LONGEST: u32 = 120;

#[derive(Clone, Copy)]
enum Deed {
    Create,
    Delete,
    /// Without waiting for the group's end, as `kubectl delete --force` does.
    Remove,
    NewImage,
    LoseAnswer(&'static str),
    FailAfterwards(&'static str),
    NoStock,
}

struct Life {
    name: &'static str,
    /// What happens after so many milliseconds each.
    deeds: &'static [(u64, Deed)],
    /// Whether the pod is there in the end.
    stays: bool,
}

const LIVES: &[Life] = &[
    Life {
        name: "created, run and deleted",
        deeds: &[(100, Deed::Create), (3_000, Deed::Delete)],
        stays: false,
    },
    Life {
        name: "deleted while its group is being made",
        deeds: &[(600, Deed::Create), (120, Deed::Delete)],
        stays: false,
    },
    Life {
        name: "taken away by force and made anew under its name",
        deeds: &[
            (100, Deed::Create),
            (1_500, Deed::Remove),
            (60, Deed::Create),
        ],
        stays: true,
    },
    Life {
        name: "the answers to its creation and its deletion get lost",
        deeds: &[
            (600, Deed::LoseAnswer("CreateContainerGroup")),
            (20, Deed::Create),
            (5_000, Deed::LoseAnswer("DeleteContainerGroup")),
            (20, Deed::Delete),
        ],
        stays: false,
    },
    Life {
        name: "its creation is answered with an error",
        deeds: &[
            (600, Deed::FailAfterwards("CreateContainerGroup")),
            (20, Deed::Create),
        ],
        stays: true,
    },
    Life {
        name: "its zone has no stock, then its image changes",
        deeds: &[
            (600, Deed::NoStock),
            (20, Deed::Create),
            (2_500, Deed::NewImage),
        ],
        stays: true,
    },
];

impl Life {
    /// Lives it with a death at that moment; how many moments it had.
    fn play(&self, dies_at: Option<u64>) -> Result<u64, String> {
        let delay = StartDelay {
            prepare: Duration::from_millis(300),
            pull: Duration::from_millis(100),
            start: Duration::from_millis(50),
        };
        let mut world = World::new(SEED, delay);
        world.fate.die_at(dies_at);
        for (after, deed) in self.deeds {
            world.advance(*after);
            do_it(&world, *deed);
            if let Some(doubled) = world.doubled() {
                return Err(doubled);
            }
        }
        world.come_to_rest(1, LONGEST)?;
        let moments = world.fate.moments();
        world.come_to_rest(CALM, LONGEST)?;
        let pods = world.api.all("pods").len();
        if pods != usize::from(self.stays) || world.cloud.groups().len() != pods {
            return Err(format!(
                "{pods} pods and {} groups in the end",
                world.cloud.groups().len()
            ));
        }
        if dies_at.is_some() && world.deaths != 1 {
            return Err(format!("{} deaths", world.deaths));
        }
        Ok(moments)
    }
}

fn do_it(world: &World, deed: Deed) {
    match deed {
        Deed::Create => world.create_pod("p", &format!("virtual-kubelet-{}", ZONES[0]), false),
        Deed::Delete => world.delete_pod("p", false),
        Deed::Remove => world.delete_pod("p", true),
        Deed::NewImage => {
            let containers = serde_json::json!([{"name": "web", "image": "shop:2"}]);
            world.api.patch(
                "pods",
                super::world::NAMESPACE,
                "p",
                &serde_json::json!({"spec": {"containers": containers}}),
            );
        }
        Deed::LoseAnswer(action) => world.fault(Fault::LoseAnswer, Some(action), Some(1), None),
        Deed::FailAfterwards(action) => {
            let refuse = Fault::Refuse {
                code: "InternalError".to_owned(),
                http_status: 500,
            };
            world.fault(refuse, Some(action), Some(2), None);
        }
        Deed::NoStock => {
            world.cloud.set_stock(ZONES[0], Some(0.0));
        }
    }
}

#[test]
fn a_life_ends_well_whenever_the_process_dies() {
    let only = std::env::var("SPRINGTIDE_LIFE").ok().map(|text| {
        let (life, moment) = text
            .split_once(':')
            .expect("SPRINGTIDE_LIFE is <life>:<moment>");
        (
            life.parse::<usize>().unwrap(),
            moment.parse::<u64>().unwrap(),
        )
    });
    if let Some((life, moment)) = only {
        LIVES[life].play(Some(moment)).unwrap();
        return;
    }
    for (number, life) in LIVES.iter().enumerate() {
        let moments = life
            .play(None)
            .unwrap_or_else(|trouble| panic!("{}: {trouble}", life.name));
        println!("{}: {moments} moments", life.name);
        for moment in 1..=moments {
            if let Err(trouble) = life.play(Some(moment)) {
                panic!(
                    "{}, death at moment {moment} of {moments}: {trouble}\nplay it again: SPRINGTIDE_LIFE={number}:{moment} cargo test -p elastic-node --test it deaths::lives",
                    life.name
                );
            }
        }
    }
}
