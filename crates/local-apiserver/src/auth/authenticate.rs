//! From credentials to a user: client certificate, static token, service-account token, impersonation.

use super::{ANONYMOUS, AUTHENTICATED, MASTERS, User, authorize, token};
use crate::core::Core;
use crate::status::{ApiError, ApiResult};
use http::{HeaderMap, header};
use jiff::Timestamp;

/// The user a verified client certificate names.
pub fn certificate_user(der: &[u8]) -> Option<User> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let name = subject
        .iter_common_name()
        .next()?
        .as_str()
        .ok()?
        .to_string();
    let groups = subject
        .iter_organization()
        .filter_map(|one| one.as_str().ok().map(str::to_string))
        .collect();
    Some(
        User {
            name,
            groups,
            ..User::default()
        }
        .authenticated(),
    )
}

/// The user of a request, or 401.
pub fn user(core: &Core, certificate: Option<&User>, headers: &HeaderMap) -> ApiResult<User> {
    if let Some(user) = certificate {
        return Ok(user.clone());
    }
    let value = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let bearer = value.and_then(|value| {
        let (scheme, rest) = value.trim().split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| rest.trim().to_string())
    });
    let bearer = bearer.or_else(|| protocol_token(headers));
    match bearer.filter(|token| !token.is_empty()) {
        None => Ok(User::anonymous()),
        Some(text) => of_token(core, &text, &[token::ISSUER.to_string()])
            .map(|checked| checked.user)
            .ok_or_else(ApiError::unauthorized),
    }
}

/// Browsers can only send a token as a WebSocket subprotocol.
fn protocol_token(headers: &HeaderMap) -> Option<String> {
    use base64::Engine;
    let list = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let encoded = list.split(',').find_map(|one| {
        one.trim()
            .strip_prefix("base64url.bearer.authorization.k8s.io.")
    })?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(encoded)
        .ok()?;
    String::from_utf8(bytes).ok()
}

/// The user of a bearer token.
pub fn of_token(core: &Core, text: &str, audiences: &[String]) -> Option<token::Checked> {
    if same_secret(text, &core.pki.admin_token) {
        return Some(token::Checked {
            user: User {
                uid: "kubernetes-admin".into(),
                ..User::new("kubernetes-admin", &[MASTERS, AUTHENTICATED])
            },
            audiences: vec![token::ISSUER.to_string()],
        });
    }
    if let Some(user) = core.static_tokens.get(text) {
        return Some(token::Checked {
            user: user.clone().authenticated(),
            audiences: vec![token::ISSUER.to_string()],
        });
    }
    core.tokens
        .check(text, audiences, &core.store, Timestamp::now())
}

/// Compares digests, so that time tells nothing about the secret.
fn same_secret(given: &str, secret: &str) -> bool {
    let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest(given).as_ref() == digest(secret).as_ref()
}

/// Takes on another identity when the headers ask for it and the user may.
pub fn impersonate(core: &Core, user: User, headers: &HeaderMap) -> ApiResult<User> {
    let all = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values
            .filter_map(|value| value.to_str().ok().map(str::to_string))
            .collect()
    };
    let name = all("impersonate-user")
        .into_iter()
        .next()
        .unwrap_or_default();
    let groups = all("impersonate-group");
    let uid = all("impersonate-uid")
        .into_iter()
        .next()
        .unwrap_or_default();
    let extra = impersonated_extra(headers);
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(user);
        }
        return Err(ApiError::plain(
            "impersonating groups, a uid or extra fields needs a user to impersonate",
        ));
    }
    check(core, &user, &name, &groups, &uid, &extra)?;
    let mut wanted = User {
        name,
        uid,
        groups,
        extra,
    };
    if wanted.groups.is_empty()
        && let Some((namespace, _)) = service_account(&wanted.name)
    {
        wanted.groups = token::account_groups(&namespace);
    }
    if wanted.name == ANONYMOUS {
        if wanted.groups.is_empty() {
            wanted.groups.push("system:unauthenticated".into());
        }
        return Ok(wanted);
    }
    Ok(wanted.authenticated())
}

fn impersonated_extra(headers: &HeaderMap) -> Vec<(String, Vec<String>)> {
    let mut extra: Vec<(String, Vec<String>)> = Vec::new();
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix("impersonate-extra-") else {
            continue;
        };
        let key = percent_encoding::percent_decode_str(key)
            .decode_utf8_lossy()
            .into_owned();
        let value = value.to_str().unwrap_or_default().to_string();
        match extra.iter_mut().find(|(one, _)| *one == key) {
            Some((_, values)) => values.push(value),
            None => extra.push((key, vec![value])),
        }
    }
    extra
}

/// Namespace and name of `system:serviceaccount:ns:name`.
fn service_account(user: &str) -> Option<(String, String)> {
    let (namespace, name) = user
        .strip_prefix("system:serviceaccount:")?
        .split_once(':')?;
    Some((namespace.to_string(), name.to_string()))
}

fn check(
    core: &Core,
    user: &User,
    name: &str,
    groups: &[String],
    uid: &str,
    extra: &[(String, Vec<String>)],
) -> ApiResult<()> {
    let may = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        authorize::check(
            core,
            user,
            &authorize::Wanted {
                verb: "impersonate",
                group,
                resource,
                subresource,
                namespace,
                name,
            },
        )
    };
    match service_account(name) {
        Some((namespace, account)) => may("", "serviceaccounts", "", &namespace, &account)?,
        None => may("", "users", "", "", name)?,
    }
    for group in groups {
        may("", "groups", "", "", group)?;
    }
    if !uid.is_empty() {
        may("authentication.k8s.io", "uids", "", "", uid)?;
    }
    for (key, values) in extra {
        for value in values {
            may("authentication.k8s.io", "userextras", key, "", value)?;
        }
    }
    Ok(())
}
