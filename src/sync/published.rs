use std::{fmt, sync::Arc};

use arc_swap::{ArcSwapOption, Guard};

/// A value that one writer replaces and any number of readers load without a lock.
///
/// The only place in the crate that names `arc_swap`. Load once per unit of work and pass the
/// loaded value down; never hold a [`PublishedRef`] across an await.
pub(crate) struct Published<T> {
    cell: ArcSwapOption<T>,
}

/// A loaded value, valid for as long as it is held. Cheap, for the stack only.
pub(crate) struct PublishedRef<T>(Guard<Option<Arc<T>>>);

impl<T> Published<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Self {
            cell: ArcSwapOption::new(Some(value)),
        }
    }

    pub(crate) fn empty() -> Self {
        Self {
            cell: ArcSwapOption::empty(),
        }
    }

    /// Borrows the newest value, if there is one.
    #[inline]
    pub(crate) fn load(&self) -> PublishedRef<T> {
        PublishedRef(self.cell.load())
    }

    /// Clones the newest value's `Arc`, if there is one.
    pub(crate) fn load_full(&self) -> Option<Arc<T>> {
        self.cell.load_full()
    }

    /// Replaces the value and returns the former one.
    pub(crate) fn swap(&self, value: Option<Arc<T>>) -> Option<Arc<T>> {
        self.cell.swap(value)
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        self.cell.store(Some(value));
    }
}

impl<T> PublishedRef<T> {
    #[inline]
    pub(crate) fn get(&self) -> Option<&Arc<T>> {
        self.0.as_ref()
    }
}

impl<T: fmt::Debug> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Published").field(&self.cell.load()).finish()
    }
}
