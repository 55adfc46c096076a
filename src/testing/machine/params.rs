//! The parameter check of servers since 2.3, before any handler sees the request.

use super::{ServiceId, instance::Stored};

const ILLEGAL: &str = "illegal characters should not appear in the param.";

pub(super) fn check_service(service: &ServiceId) -> Result<(), String> {
    check("namespace", &service.namespace, 64, is_word)?;
    check("serviceName", &service.name, 512, |c| {
        c.is_ascii_graphic() && c != '/'
    })?;
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
    check("ip", &instance.ip, 128, |c| c.is_ascii_graphic())?;
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

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}
