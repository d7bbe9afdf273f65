//! Weights: initialisers, and the layouts of other frameworks.
