"""What `desire` and the guards need from outside besides the targets."""
