use crate::status::{model::List, query::Query};

/// The part of a list that is asked for; the last, if there are not so many.
pub(super) fn part<S, T>(
    total: usize,
    matching: &[S],
    query: &Query,
    show: impl FnMut(&S) -> T,
) -> List<T> {
    let limit = query.limit;
    let pages = matching.len().div_ceil(limit).max(1);
    let page = query.page.min(pages);
    let first = (page - 1) * limit;
    List {
        total,
        matching: matching.len(),
        filter: query.filter.clone(),
        page,
        pages,
        limit,
        items: matching.iter().skip(first).take(limit).map(show).collect(),
    }
}

/// Whether one text holds the other, whatever the case of its letters.
pub(super) fn holds(text: &str, filter: &str) -> bool {
    filter.is_empty() || text.to_lowercase().contains(filter)
}
