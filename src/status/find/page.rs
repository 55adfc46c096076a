use super::{instances, services};
use crate::model::ServiceName;
use crate::status::{
    clock::{Moment, rfc3339},
    model::{Detail, Page},
    query::Query,
    seen::{RegistrySeen, Seen, ServiceSeen},
    text::clean,
};

/// A service that is asked for and not there.
#[derive(Debug)]
pub(in crate::status) struct Missing {
    asked: String,
    services: usize,
}

/// What a query asks for.
pub(in crate::status) fn page(seen: &Seen, query: &Query, now: Moment) -> Result<Page, Missing> {
    let (services, service) = match &query.service {
        None => (Some(services::list(seen, query, now)), None),
        Some(asked) => {
            let found = find(seen, asked, query.registry).ok_or_else(|| Missing {
                asked: clean(asked),
                services: seen.services.len(),
            })?;
            let detail = Detail {
                service: services::show(found, now),
                instances: instances::list(found, query),
            };
            (None, Some(detail))
        }
    };
    Ok(Page {
        at: rfc3339(now.wall),
        version: seen.version,
        registries: seen
            .registries
            .iter()
            .map(|r| RegistrySeen::shown(r, now))
            .collect(),
        services,
        service,
        timeline: seen.timeline.to_vec(),
    })
}

fn find<'a>(seen: &'a Seen, asked: &str, registry: Option<usize>) -> Option<&'a ServiceSeen> {
    let name: ServiceName = asked.parse().ok()?;
    // What names no group means the default one; if that has none of the name, whoever has.
    let named = asked.contains('@');
    let of = |service: &&ServiceSeen| {
        registry.is_none_or(|number| service.registry == number)
            && service.subscription.key().name() == name.name()
    };
    let mut all = seen.services.iter().map(|service| &**service).filter(of);
    let exact = all
        .clone()
        .find(|s| s.subscription.key().group() == name.group());
    exact.or_else(|| if named { None } else { all.next() })
}

impl Missing {
    pub(in crate::status) fn text(&self) -> String {
        let Self { asked, services } = self;
        format!(
            "no service {asked:?} is subscribed to here now, of {services} that are; one is written \
             `name` or `group@@name`, and an HTTP client lets go of what is not called"
        )
    }
}
