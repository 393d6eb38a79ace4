"""What writes the documents that are generated; no part of the package."""
