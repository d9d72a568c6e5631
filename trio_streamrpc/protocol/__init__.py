"""The sans-IO core: frames and verbs in, frames and messages out; no trio, clock or user values."""
