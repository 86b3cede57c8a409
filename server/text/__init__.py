"""What text is made of before it is tokens: segments and languages."""
