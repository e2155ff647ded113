"""AWS calls of the client, without building botocore's clients: a login pays for each import and each model.

`AwsSession` calls the JSON operations of Systems Manager, SageMaker and CloudWatch Logs over `http.client`.
Credentials that the environment or the shared files hold are read here; all other ways to them (SSO without a
cached role, assumed roles, processes, container and instance roles) are botocore's, which is imported then.
"""

from .session import AwsSession, ServiceRefused

__all__ = ["AwsSession", "ServiceRefused"]
