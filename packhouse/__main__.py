from packhouse.cli import main

main()
