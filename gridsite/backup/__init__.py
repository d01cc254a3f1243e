"""Backups of one deployment: database and storage in one set, keys apart, the head of the audit log in neither."""
