//! The parameter check of servers since 2.3, before any handler sees the request.

use super::{ServiceId, instance::Stored};

const ILLEGAL: &str = "illegal characters should not appear in the param.";

pub(super) fn check_service(service: &ServiceId) -> Result<(), String> {
    check("namespace", &service.namespace, 64, is_word)?;
    // `^(?!@).((?!@@)[^\u4E00-\u9FA5\s])*$`: Chinese is refused but for the first letter.
    check("serviceName", &service.name, 512, |_| true)?;
    let mut letters = service.name.chars();
    let first = letters.next();
    if first.is_some_and(|c| matches!(c, '\n' | '\r')) || !letters.all(is_plain) {
        return Err(illegal("serviceName"));
    }
    if service.name.starts_with('@') || service.name.contains("@@") {
        return Err(illegal("serviceName"));
    }
    check("groupName", &service.group, 128, |c| {
        is_word(c) || matches!(c, '.' | ':')
    })
}

pub(super) fn check_clusters(clusters: &str) -> Result<(), String> {
    clusters
        .split(',')
        .try_for_each(|cluster| check("cluster", cluster, 64, is_word))
}

pub(super) fn check_instance(instance: &Stored) -> Result<(), String> {
    check("cluster", &instance.cluster, 64, is_word)?;
    check("ip", &instance.ip, 128, is_plain)?;
    if !(0..=65_535).contains(&instance.port) {
        return Err(
            "Param check invalid:Param 'port' is illegal, the value should be between 0 and 65535."
                .to_owned(),
        );
    }
    let size: usize = instance
        .metadata
        .iter()
        .map(|(key, value)| key.chars().count() + value.chars().count())
        .sum();
    if size > 1_024 {
        return Err(
            "Param check invalid:Param 'Metadata' is illegal, the param length should not exceed 1024."
                .to_owned(),
        );
    }
    Ok(())
}

fn check(
    what: &str,
    text: &str,
    longest: usize,
    allowed: impl Fn(char) -> bool,
) -> Result<(), String> {
    if text.chars().count() > longest {
        return Err(format!(
            "Param check invalid:Param '{what}' is illegal, the param length should not exceed {longest}."
        ));
    }
    // A blank text is let through, whatever the pattern: that is where "" as a name comes from.
    if text.trim().is_empty() || text.chars().all(allowed) {
        Ok(())
    } else {
        Err(illegal(what))
    }
}

fn illegal(what: &str) -> String {
    format!("Param check invalid:Param '{what}' is illegal, {ILLEGAL}")
}

/// `[^\u4E00-\u9FA5\s]`, as genuine 3.1.0 has it.
fn is_plain(c: char) -> bool {
    !matches!(c, '\u{4E00}'..='\u{9FA5}' | ' ' | '\t'..='\r')
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Result<(), String> {
        check_service(&ServiceId {
            name: name.into(),
            ..ServiceId::from("any")
        })
    }

    #[test]
    fn names_are_what_genuine_servers_take() {
        for good in [
            "orders",
            "a/b",
            "a@b",
            "café",
            "сервис",
            "訳",
            &"ж".repeat(512),
        ] {
            assert_eq!(of(good), Ok(()), "{good}");
        }
        for bad in ["@a", "a@@b", "a b", "a\tb", "订单", &"ж".repeat(513)] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
