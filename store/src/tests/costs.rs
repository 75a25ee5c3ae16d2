//! What things cost, counted.
