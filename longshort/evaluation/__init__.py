"""What a team is worth on problems that it was not trained on: figures and how sure they are."""
