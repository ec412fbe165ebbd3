from duotrack.cli import main

main()
