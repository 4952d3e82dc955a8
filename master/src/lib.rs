//! The master: admits agents, offers their resources to frameworks, tracks tasks.
