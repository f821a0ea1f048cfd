from packhouse.cli.app import main

main()
