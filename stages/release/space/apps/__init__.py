"""The programs of a Space: copied into its folder as they stand here, so they import nothing that is not taken along."""
