from duotrack_service.cli import main

main()
