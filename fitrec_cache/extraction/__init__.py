"""From clips to what is committed of them: who does which, under which identity."""
