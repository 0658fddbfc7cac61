pub(crate) mod login;
pub(crate) mod overview;
pub(crate) mod queues;
pub(crate) mod saga;
pub(crate) mod sagas;
pub(crate) mod stuck;
pub(crate) mod timeline;
pub(crate) mod workers;
