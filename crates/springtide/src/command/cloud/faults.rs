//! `springtide cloud fault`: ordered, listed, ended.

use http::Method;
use local_cloud::{Fault, FaultOrder};
use serde_json::Value;

use super::arguments::{FaultArguments, FaultCommand, FaultKind};
use super::control::Control;
use crate::cli::Output;
use crate::printer;

pub async fn run(control: &Control, command: FaultCommand) -> anyhow::Result<()> {
    match command {
        FaultCommand::Add(arguments) => {
            let order = serde_json::to_value(order(arguments))?;
            let answer = control.call(Method::POST, "faults", &order).await?;
            printer::data(answer["id"].as_str().unwrap_or_default());
        }
        FaultCommand::List { output } => {
            let answer = control.call(Method::GET, "faults", &Value::Null).await?;
            match output {
                Output::Json => super::print(&answer["faults"])?,
                Output::Text => printer::data(table(&answer["faults"])),
            }
        }
        FaultCommand::Clear { ids } if ids.is_empty() => {
            let answer = control.call(Method::DELETE, "faults", &Value::Null).await?;
            printer::note(format!("{} faults are ended", answer["cleared"]));
        }
        FaultCommand::Clear { ids } => {
            for id in ids {
                let path = format!("faults/{id}");
                control.call(Method::DELETE, &path, &Value::Null).await?;
                printer::note(format!("fault {id} is ended"));
            }
        }
    }
    Ok(())
}

fn order(arguments: FaultArguments) -> FaultOrder {
    let (fault, action) = match arguments.kind {
        FaultKind::NoStock { zone, spec } => (Fault::NoStock { zone, spec }, None),
        FaultKind::NoAddresses { zone, v_switch } => (Fault::NoAddresses { zone, v_switch }, None),
        FaultKind::Throttle { action } => (Fault::Throttle, action),
        FaultKind::Latency { delay, action } => {
            let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            (Fault::Latency { delay_ms }, action)
        }
        FaultKind::LoseAnswer { action } => (Fault::LoseAnswer, action),
        FaultKind::Refuse {
            code,
            http_status,
            action,
        } => (Fault::Refuse { code, http_status }, action),
        FaultKind::Down => (Fault::Down, None),
        FaultKind::InstanceFailure { group, zone } => {
            (Fault::InstanceFailure { group, zone }, None)
        }
        FaultKind::SpotReclaim { group, zone } => (Fault::SpotReclaim { group, zone }, None),
        FaultKind::SecurityGroup { id } => (Fault::SecurityGroup { id }, None),
    };
    FaultOrder {
        fault,
        action,
        times: arguments.times,
        seconds: arguments.lasting.map(|lasting| lasting.as_secs().max(1)),
    }
}

fn table(faults: &Value) -> String {
    let mut text = format!(
        "{:<26} {:<17} {:<40} {:>5} {:>6} {:<22} {}",
        "ID", "KIND", "WHERE", "HITS", "LEFT", "UNTIL", "ACTIVE"
    );
    for fault in faults.as_array().into_iter().flatten() {
        let shown = |name: &str| match &fault[name] {
            Value::Null => "-".to_string(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let members = [
            "action", "zone", "spec", "vSwitch", "group", "code", "delayMs",
        ];
        let place: Vec<String> = members
            .iter()
            .filter(|name| !fault[**name].is_null())
            .map(|name| format!("{name}={}", shown(name)))
            .collect();
        text += &format!(
            "\n{:<26} {:<17} {:<40} {:>5} {:>6} {:<22} {}",
            shown("id"),
            shown("kind"),
            place.join(" "),
            shown("hits"),
            shown("left"),
            shown("until"),
            shown("active")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn flags_become_an_order() {
        let arguments = FaultArguments {
            kind: FaultKind::Latency {
                delay: Duration::from_millis(1_500),
                action: Some("CreateContainerGroup".to_string()),
            },
            times: Some(3),
            lasting: Some(Duration::from_secs(60)),
        };
        let order = serde_json::to_value(order(arguments)).unwrap();
        let expected = json!({"kind": "latency", "delayMs": 1500, "action": "CreateContainerGroup", "times": 3, "seconds": 60});
        assert_eq!(order, expected);
    }

    #[test]
    fn a_table_shows_where_a_fault_hits() {
        let faults = json!([{"id": "flt-1", "kind": "no-stock", "zone": "z", "spec": null, "hits": 2, "left": null, "until": null, "active": true}]);
        let text = table(&faults);
        assert!(text.contains("zone=z") && !text.contains("spec="), "{text}");
    }
}
