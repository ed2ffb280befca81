"""What auditors read: parts shown one by one, and receipts of others. Nothing here is on a prompt's way."""
