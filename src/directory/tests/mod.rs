mod basics;
mod support;
