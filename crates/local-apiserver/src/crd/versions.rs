//! The order of version names: stable before beta before alpha, higher before lower, others last.

/// Sorts after everything it is preferred to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Not a Kubernetes version name; earlier letters are preferred.
    Other(std::cmp::Reverse<String>),
    /// Stability (alpha 0, beta 1, stable 2), major, minor.
    Kube(u8, u64, u64),
}

/// The rank of `v2`, `v1beta3`, `foo`.
pub fn rank(version: &str) -> Rank {
    kube_rank(version).unwrap_or_else(|| Rank::Other(std::cmp::Reverse(version.to_string())))
}

fn kube_rank(version: &str) -> Option<Rank> {
    let rest = version.strip_prefix('v')?;
    let digits = rest
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(rest.len());
    let (major, stage) = rest.split_at(digits);
    if major.starts_with('0') {
        return None;
    }
    let major = major.parse().ok()?;
    if stage.is_empty() {
        return Some(Rank::Kube(2, major, 0));
    }
    let (level, minor) = if let Some(minor) = stage.strip_prefix("beta") {
        (1, minor)
    } else {
        (0, stage.strip_prefix("alpha")?)
    };
    Some(Rank::Kube(level, major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_order_holds() {
        let mut versions = vec![
            "foo10",
            "v10",
            "v11alpha2",
            "v2",
            "v3beta1",
            "v12alpha1",
            "foo1",
            "v10beta3",
            "v11beta2",
            "v1",
        ];
        versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
        assert_eq!(
            versions,
            [
                "v10",
                "v2",
                "v1",
                "v11beta2",
                "v10beta3",
                "v3beta1",
                "v12alpha1",
                "v11alpha2",
                "foo1",
                "foo10"
            ]
        );
    }
}
