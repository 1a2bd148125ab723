"""Other frameworks than PyTorch that tune and answer."""
