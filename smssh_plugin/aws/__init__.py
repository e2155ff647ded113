"""AWS calls without building botocore's clients: a login pays for each import and each model.

`session.AwsSession` calls the JSON operations of Systems Manager, SageMaker and CloudWatch Logs over `http.client`.
Credentials that the environment or the shared files hold are read here; all other ways to them (SSO without a
cached role, assumed roles, processes, container and instance roles) are botocore's, which is imported then.
`json_client`, `signing` and `transport` are also for containers, and run on Python 3.8.
"""
