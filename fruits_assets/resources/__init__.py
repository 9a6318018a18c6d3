"""What assets are given: where images come from, where tables live, what runs Spark."""
