"""What the commands of one provider do beyond what those of all providers share."""
