//! Which services there are: read once, or kept in step.

use std::collections::BTreeSet;

use tokio::{sync::oneshot, task::coop::consume_budget, time::timeout};

use super::{client::Client, error::RequestError, operations::Operation};
use crate::{
    directory::ServiceList,
    model::{ServiceFilter, ServiceName},
    session::{Outcome, is_over},
};

impl Client {
    /// Keeps a list of the services that `filter` takes, and waits until the registry has listed
    /// all of them.
    ///
    /// ```no_run
    /// # async fn f(nacos: tower_nacos::Client) -> Result<(), tower_nacos::client::RequestError> {
    /// use tower_nacos::{directory::ServiceChange, model::ServiceFilter};
    ///
    /// let orders = nacos.services(ServiceFilter::group("shop").name("order-*")).await?;
    /// println!("{} services", orders.snapshot().len());
    /// let mut changes = orders.changes();
    /// while let Some(change) = changes.next().await {
    ///     match change {
    ///         ServiceChange::Added(service) => println!("+ {service}"),
    ///         ServiceChange::Removed(service) => println!("- {service}"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A text is the group. A server with fuzzy watch (3.0 and later) tells what comes and goes
    /// within 0.1 s, and everything about 2 s after it is asked; every three minutes it is asked
    /// again. From others, and where its limits are reached (20 patterns of all clients, 500
    /// services a pattern unless set otherwise there), the list is read page by page, every 10 s
    /// ([`ClientBuilder::services_interval`](super::ClientBuilder::services_interval)): what comes is seen with
    /// the next page, and what goes when two complete readings miss it. Such servers list a service
    /// on for 60 to 100 s after its last instance left, and one group at a time.
    ///
    /// What a server tells closely one after the other is seen together, up to 50 ms later, and
    /// 10 µs more for each service of the list. More than
    /// 1,000,000 services are left out, with a warning.
    ///
    /// Services that are missing after a reconnect are [held](crate::guide::glossary#of-a-list) as instances are
    /// ([`Options::hold`](crate::directory::Options::hold)), so that a registry that comes back
    /// empty takes nothing away.
    ///
    /// # Errors
    ///
    /// When a pattern breaks the rules, the filter takes several groups and the server cannot list
    /// those, the server refuses, or no answer comes within the client's patience (10 s unless
    /// set); nothing is kept then.
    pub async fn services(
        &self,
        filter: impl Into<ServiceFilter>,
    ) -> Result<ServiceList, RequestError> {
        consume_budget().await;
        self.handle.asks()?;
        let list = self.services_lazy(filter)?;
        let filter = list.filter();
        let (reply, refused) = oneshot::channel();
        self.handle.send(Operation::AwaitServices {
            filter: filter.clone(),
            reply,
        })?;
        let listed = async {
            let ready = tokio::select! {
                biased;
                ready = list.ready() => ready,
                refused = refused => match refused {
                    Ok(refused) => return Err(refused),
                    // The driver let go of us because it ended.
                    Err(_) => list.ready().await,
                },
            };
            if ready {
                Ok(())
            } else {
                Err(self.handle.gone())
            }
        };
        match timeout(self.handle.patience, listed).await {
            Ok(Ok(())) => Ok(list),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let why = |reply| Operation::DiagnoseServices {
                    filter: filter.clone(),
                    reply,
                };
                let trouble = self.handle.ask(why).await.flatten();
                Err(self.handle.timed_out_on(trouble))
            }
        }
    }

    /// The same, but returns at once; nothing is known until the registry answers.
    ///
    /// # Errors
    ///
    /// When a pattern breaks the rules, or the client is closed.
    pub fn services_lazy(
        &self,
        filter: impl Into<ServiceFilter>,
    ) -> Result<ServiceList, RequestError> {
        let filter = filter.into().checked().map_err(RequestError::InvalidName)?;
        if self.handle.is_over() {
            return Err(self.handle.gone());
        }
        let (list, writer) = self.handle.lists.lease(&filter, &self.handle.operations);
        if let Some(writer) = writer.map(Box::new) {
            self.handle.send(Operation::Watch { filter, writer })?;
        }
        Ok(list)
    }

    /// Reads the names of all services of a group that have an instance once, sorted, page by page.
    ///
    /// Names carry no group. A list that changes while it is read may miss a name or show one that
    /// has just gone: servers page through a hash table. [`services`](Self::services) keeps one.
    ///
    /// # Errors
    ///
    /// When the group breaks Nacos's rules, the server refuses, or no answer comes in time.
    pub async fn service_names(&self, group: &str) -> Result<Vec<String>, RequestError> {
        const PAGE: u32 = 500;
        consume_budget().await;
        let group = ServiceName::new(group, "any").map_err(RequestError::InvalidName)?;
        let group = group.group();
        let mut all = Names::default();
        for page in 1.. {
            let list = |ticket, reply| Operation::List {
                ticket,
                group: group.clone(),
                page,
                page_size: PAGE,
                reply,
            };
            let Outcome::Names { count, names } = self.handle.request(list).await? else {
                break;
            };
            if !all.take(names, PAGE, count) {
                break;
            }
        }
        Ok(all.0.into_iter().collect())
    }
}

/// Names that are read page by page.
#[derive(Debug, Default)]
struct Names(BTreeSet<String>);

impl Names {
    /// Takes a page of at most `size` names in, of `count` in all. True if there are more.
    fn take(&mut self, names: Vec<String>, size: u32, count: u64) -> bool {
        let (page, before) = (names.len(), self.0.len());
        self.0.extend(names);
        !is_over(page, size, before, self.0.len(), count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MOST_SERVICES;

    fn page(number: usize, size: usize) -> Vec<String> {
        let names = number * size..(number + 1) * size;
        names.map(|n| n.to_string()).collect()
    }

    #[test]
    fn names_are_read_until_all_have_come() {
        let mut names = Names::default();
        assert!(names.take(page(0, 10), 10, 25) && names.take(page(1, 10), 10, 25));
        assert!(!names.take(page(2, 10), 10, 25), "as many as it counts");
        let mut names = Names::default();
        assert!(
            !names.take(page(0, 9), 10, 1_000),
            "a page that is not full"
        );
    }

    #[test]
    fn a_server_that_counts_wrong_is_read_to_an_end() {
        let mut names = Names::default();
        assert!(names.take(page(0, 10), 10, u64::MAX));
        assert!(!names.take(page(0, 10), 10, u64::MAX), "nothing new");
        let mut names = Names::default();
        let pages = (0..).take_while(|n| names.take(page(*n, 1_000), 1_000, u64::MAX));
        assert_eq!(pages.count(), MOST_SERVICES / 1_000 - 1, "without end");
    }
}
