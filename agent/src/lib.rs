//! The agent: runs executors and forwards what becomes of tasks.
