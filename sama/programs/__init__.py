"""The paper's bilevel programs."""
