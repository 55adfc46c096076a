//! The page for people. Every text goes through `Esc`.

mod files;
mod instances;
mod page;
mod parts;
mod services;
mod timeline;
mod write;

pub(super) use self::{
    files::file,
    page::{missing, page},
};
