//! What the rules say, as tables, stories and random lives.

mod building;
mod evaluating;
mod held;
mod life;
mod model;
mod pruning;
mod random;
mod rounds;
mod scripts;
mod site;
mod strict;
mod updating;
mod whims;
