//! What stands on the command line.

use tower_nacos::model::ServiceFilter;

/// A registry's address without what is secret in it.
pub(crate) fn name_of(server: &str) -> &str {
    let server = server.rsplit_once('@').map_or(server, |(_, rest)| rest);
    let server = server.split_once("://").map_or(server, |(_, rest)| rest);
    server.split(['?', '#']).next().unwrap_or(server)
}

/// `group`, or `group@name`, or the same with two @ as Nacos has it.
pub(crate) fn read_filter(text: &str) -> ServiceFilter {
    match text.split_once('@') {
        Some((group, name)) => {
            let name = name.strip_prefix('@').unwrap_or(name);
            ServiceFilter::group(group).name(name)
        }
        None => ServiceFilter::group(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_no_secret() {
        for (server, name) in [
            ("old:8848", "old:8848"),
            ("nacos://old:8848/dev", "old:8848/dev"),
            (
                "nacos://user:pass%40word@a:8848,b:8848/dev?group=G",
                "a:8848,b:8848/dev",
            ),
            (
                "nacos+http://me:secret@ends:8080/nacos/serverlist?namespace=n",
                "ends:8080/nacos/serverlist",
            ),
        ] {
            assert_eq!(name_of(server), name);
        }
    }

    #[test]
    fn a_filter_is_a_group_or_a_group_and_a_name() {
        let orders = ServiceFilter::group("shop").name("order-*");
        for text in ["shop@order-*", "shop@@order-*"] {
            assert_eq!(read_filter(text), orders);
        }
        assert_eq!(read_filter("shop"), ServiceFilter::group("shop"));
    }
}
