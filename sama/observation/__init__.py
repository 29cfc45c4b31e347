"""What a model says of the training examples, beyond its logits: training dynamics, features, gradient norms."""
