"""Where text comes from: files, hub data sets, and the sample inside a package."""
