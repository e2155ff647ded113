"""Why a step failed: the error that ended it, chosen out of records, logs and texts of the service, and its cause.

Nothing here calls AWS, a container or the file system: `find.cause` gets what others have fetched. All of it comes from
elsewhere, so all of it is bounded, and whatever it holds, the answer is a finding and no exception.
"""
