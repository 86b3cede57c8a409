"""What Stele is measured against, each run the way its users run it."""
