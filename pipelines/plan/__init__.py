"""What is random is decided here: order, frames, crops."""
