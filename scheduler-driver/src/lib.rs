//! Library for frameworks: the Scheduler trait and its driver.
