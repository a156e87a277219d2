"""VideoAlign, the vision-language judge of Re-DMD at full size."""
