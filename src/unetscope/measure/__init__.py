"""From streams of activations to estimates in bits."""
