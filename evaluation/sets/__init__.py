"""What is compared: `.bin` sets, labelled faces, pairs, IJB, stored arrays and scores."""
